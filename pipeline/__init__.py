"""The library behind the stages: arrays and tables in, arrays and tables out."""

from alignrec.pipeline.harness import process

process.let_threads_sleep()  # before torch or FAISS is loaded, which nothing does sooner
