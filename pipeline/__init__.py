"""The library behind the stages: arrays and tables in, arrays and tables out."""
