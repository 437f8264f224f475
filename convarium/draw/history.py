"""The winners of ImageNet's challenge in classification, 2010 to 2017, each figure with its source.

The errors are those of the entries that learnt from the challenge's own pictures only, on its test set, as the
organisers published them. Two winners did better with more pictures; that figure stands beside the other.
"""

from __future__ import annotations

from dataclasses import dataclass

_REPORT = "Russakovsky et al. 2015, arXiv:1409.0575"
_PAGE = "image-net.org/challenges/LSVRC/{}/results"


@dataclass(frozen=True)
class Winner:
    """The best entry of one year.

    Args:
        year: of the challenge.
        team: as the organisers list it.
        network: what it entered; how it worked, where that was no network.
        neural: whether it was a neural network.
        top5_error_percent: on the test set, trained on the challenge's pictures only.
        layers: with weights, of its deepest network; None where it was no network or no depth was published.
        more_data_percent: the same error with pictures from elsewhere, where the team entered that too.
        source: of the error.
        layers_source: of the number of layers.
    """

    year: int
    team: str
    network: str
    neural: bool
    top5_error_percent: float
    layers: int | None
    more_data_percent: float | None
    source: str
    layers_source: str


WINNERS = (
    Winner(
        2010,
        "NEC-UIUC",
        "SIFT, LBP, SVM",
        False,
        28.191,
        None,
        None,
        f"{_PAGE.format(2010)}; {_REPORT}",
        "",
    ),
    Winner(
        2011,
        "XRCE",
        "Fisher vectors",
        False,
        25.770,
        None,
        None,
        f"{_PAGE.format(2011)}; {_REPORT}",
        "",
    ),
    Winner(
        2012,
        "SuperVision",
        "AlexNet",
        True,
        16.422,
        8,
        15.315,
        f"{_PAGE.format(2012)}; {_REPORT}",
        "Krizhevsky et al. 2012: five convolutions, three fully connected layers",
    ),
    Winner(
        2013,
        "Clarifai",
        "as ZFNet",
        True,
        11.743,
        8,
        11.197,
        f"{_PAGE.format(2013)}; {_REPORT}",
        "Zeiler and Fergus 2014, arXiv:1311.2901, figure 3: the net of the team's founder; its own was not published",
    ),
    Winner(
        2014,
        "GoogLeNet",
        "Inception v1",
        True,
        6.656,
        22,
        None,
        f"{_PAGE.format(2014)}; {_REPORT}",
        "Szegedy et al. 2014, arXiv:1409.4842: 22 layers with parameters, an ensemble of seven",
    ),
    Winner(
        2015,
        "MSRA",
        "ResNet",
        True,
        3.567,
        152,
        None,
        f"{_PAGE.format(2015)}; He et al. 2015, arXiv:1512.03385, table 5",
        "He et al. 2015, arXiv:1512.03385, section 4.1: an ensemble of six depths, 152 the greatest",
    ),
    Winner(
        2016,
        "Trimps-Soushen",
        "an ensemble",
        True,
        2.991,
        None,
        None,
        _PAGE.format(2016),
        "",
    ),
    Winner(
        2017,
        "WMW",
        "SENet",
        True,
        2.251,
        154,
        None,
        "Hu et al. 2017, arXiv:1709.01507, section 5.4",
        "Hu et al. 2017, arXiv:1709.01507, section 5.4: SENet-154, one of a small ensemble",
    ),
)
"""One row a year, in the order of the years."""

HUMAN_PERCENT = 5.1
"""Top-5 error of one trained annotator on 1500 pictures of the test set of 2012."""

HUMAN_SOURCE = _REPORT + ", section 6.4"
