"""Feature set against feature set: anybody's file (given), probes with paired tests (judge), trained recommenders
(training), geometry, two releases (releases), and what is shown of it all (page)."""
