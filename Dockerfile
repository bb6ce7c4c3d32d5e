# The README's main command in a container, on a CPU:
#   docker build -t alignrec . && docker run -v alignrec-outputs:/alignrec/outputs alignrec
# With an NVIDIA GPU, whose libraries come with torch from PyPI:
#   docker build -t alignrec --build-arg FAISS=gpu . && docker run --gpus all -v alignrec-outputs:/alignrec/outputs alignrec
FROM python:3.11-slim
ARG FAISS=cpu
RUN apt-get update && apt-get install -qy --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /alignrec
COPY . .
RUN git init -q && make FAISS=$FAISS .venv/installed
ENV PATH=/alignrec/.venv/bin:$PATH
CMD ["make", "repro"]
