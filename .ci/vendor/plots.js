import { compile } from "vega-lite";
import { parse, View } from "vega";

window.vegaEmbed = (id, spec) => {
  if (Object.keys(spec).length) {  // DVC's is empty where there are no data
    new View(parse(compile(spec).spec)).initialize(id).hover().runAsync();
  }
};
