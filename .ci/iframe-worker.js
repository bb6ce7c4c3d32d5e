// Search of the docs from disk: browsers start no worker of a page that was opened as a file, so a hidden frame runs its script.
// The theme asks for the name IFrameWorker.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = (...urls) => Promise.all(urls.map((script) => load(inner.document, script)));
      this.inner = inner;
      this.ready = load(inner.document, String(url));
    }
    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inner.frameElement.remove();
    }
  }
  const load = (into, url) =>
    new Promise((resolve, reject) => {
      const script = into.createElement("script");
      Object.assign(script, { src: url, onload: resolve, onerror: reject });
      into.body.append(script);
    });
  window.IFrameWorker = window.Worker = IFrameWorker;
}
