"""Steps of known size in place of a normalization, as a protocol beside those of the four papers."""

from dataclasses import replace

from convkit.papers.protocols import NARROW, PAPERS, SMALL, Cell, Claim, Protocol, tiny

HE = {"options": {**NARROW, "start": "he"}}  # weights large enough that the signal reaches the last layer
STEPS = replace(SMALL, minutes=20, rates=(0.02, 0.05, 0.1), note="BN is the only network with BatchNorm.")
PAPERS.register(
    "M-steps",
    Protocol(
        "M",
        "Steps",
        "training without normalization: SGD, Muon on flattened kernels, Muon in the true operator norm",
        [
            Cell("SGD", "plain", tuned={"lr": (0.02, 0.05, 0.1, 0.2)}),
            Cell("Muon, flattened", "muon", tuned={"lr": (0.02, 0.05, 0.1)}),
            Cell("Muon, true norm", "conv_muon", tuned={"lr": (0.05, 0.15, 0.3)}),
            Cell("polar layers", "layer_polar"),
            Cell("BN", "batchnorm"),
            Cell("SGD, He's start", "plain", tuned={"lr": (0.005, 0.02, 0.05, 0.1)}, changes=HE),
            Cell("Muon, flattened, He's start", "muon", tuned={"lr": (0.02, 0.05, 0.1)}, changes=HE),
            Cell("Muon, true norm, He's start", "conv_muon", tuned={"lr": (0.05, 0.15, 0.3)}, changes=HE),
        ],
        {"tiny": tiny(STEPS), "small": STEPS},
        [
            Claim("steps of known size train where SGD does not", ("Muon, true norm",), ("SGD",), "clean", "higher"),
            Claim("flattened kernels do, too", ("Muon, flattened",), ("SGD",), "clean", "higher"),
            Claim("the true norm against flattened", ("Muon, true norm",), ("Muon, flattened",), "clean", "not lower"),
            Claim("the true norm against BatchNorm", ("Muon, true norm",), ("BN",), "clean", "not lower"),
            Claim(
                "from He's start: the true norm against flattened",
                ("Muon, true norm, He's start",),
                ("Muon, flattened, He's start",),
                "clean",
                "not lower",
            ),
            Claim(
                "from He's start: the true norm against SGD",
                ("Muon, true norm, He's start",),
                ("SGD, He's start",),
                "clean",
                "higher",
            ),
            Claim("whole layers normalized against SGD", ("polar layers",), ("SGD",), "clean", "higher"),
        ],
    ),
)
