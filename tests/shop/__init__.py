"""The shops that tests run on, written by the builders of `toy`.

- `toy`: six items and four users, with outputs of every stage; and builders of tables, feature sets and graphs.
- `tastes`: 60 users of two tastes and 50 items, for recommenders; and a release of it.
- `cold`: the same two tastes, with cold items.
- `featured`: coloured items, for the stages that make feature sets.
- `pretraining`: items with a colour and a thing, for BEiT3.
- `releases`: releases of `toy`, and edits of a release.
"""
