"""Terms of what a release is made from, by kind of source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """Terms of one kind of source."""

    header: dict[str, str]
    """keys of the Hub's metadata block"""
    text: str
    """for people"""


OPENMOJI = (
    "The pictures behind the features are [OpenMoji](https://openmoji.org), the open-source emoji and icon project, "
    "licence [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/); so is this release. Names and categories "
    "are Unicode's ([Unicode License](https://www.unicode.org/license.txt)). The shoppers are synthetic."
)
AMAZON = (
    "Made from the Amazon review data collected by Julian McAuley's group at UC San Diego, who ask that their papers "
    "be cited (2014: McAuley et al., *Image-based recommendations on styles and substitutes*; 2018: Ni et al., "
    "*Justifying recommendations using distantly-labeled reviews and fine-grained aspects*). No licence is stated for "
    "the data; product texts and pictures belong to their owners. Use the release for research, and mind the terms of "
    "the source."
)
AMAZON_HEADER = {
    "license": "other",
    "license_name": "amazon-review-data",
    "license_link": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
}
AMAZON_2023 = (
    "Made from the Amazon Reviews 2023 data collected by Julian McAuley's group at UC San Diego, who ask that their "
    "paper be cited (Hou et al., *Bridging Language and Items for Retrieval and Recommendation*, arXiv 2403.03952). No "
    "licence is stated for the data; product texts and pictures belong to their owners. Use the release for research, "
    "and mind the terms of the source."
)
OWN = "Made from files that the publisher of this release named; their terms are the publisher's to state."
MMREC = (
    "Made from a folder in MMRec's format whose interactions, texts and features were imported as they were; their "
    "terms are their publishers'."
)

LICENCES = {
    "sample": Licence({"license": "cc-by-sa-4.0"}, OPENMOJI),
    "amazon2014": Licence(AMAZON_HEADER, AMAZON),
    "amazon2018": Licence(AMAZON_HEADER, AMAZON),
    "amazon2023": Licence(AMAZON_HEADER | {"license_link": "https://amazon-reviews-2023.github.io/"}, AMAZON_2023),
    "tabular": Licence({"license": "unknown"}, OWN),
    "mmrec": Licence({"license": "unknown"}, MMREC),
}
