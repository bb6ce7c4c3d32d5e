# The README's main command in a container, on a CPU:
#   docker build -t alignrec . && docker run -v "$PWD/outputs:/alignrec/outputs" alignrec
# With an NVIDIA GPU, whose libraries come with torch from PyPI:
#   docker build -t alignrec --build-arg FAISS=gpu . && docker run --gpus all -v "$PWD/outputs:/alignrec/outputs" alignrec
# The same `docker run` goes on where it was stopped, and `docker run alignrec alignrec --help` runs any other command.
FROM python:3.11-slim
ARG FAISS=cpu
RUN apt-get update && apt-get install -qy --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PATH=/alignrec/.venv/bin:$PATH
WORKDIR /alignrec
COPY . .
RUN git init -q && make FAISS=$FAISS .venv/installed
CMD ["make", "repro"]
