"""Compare the networks in numpy with MediaPipe's models in LiteRT, on random pictures.

Usage: ``python tools/portrait/verify.py mediapipe-0.10.21-….whl``. The segmentation network has an operation that LiteRT lacks, so it
is not compared here; MediaPipe's own ``solutions.selfie_segmentation`` runs it.
"""

from __future__ import annotations

import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from convert import MODELS

from a2v.engine.portrait.network import Network


def main(wheel: Path) -> None:
    """Print the largest difference of each network."""
    with zipfile.ZipFile(wheel) as file:
        for name, path in MODELS.items():
            content = file.read(path)
            if name == "segmentation":
                continue
            interpreter = Interpreter(model_content=content)
            interpreter.allocate_tensors()
            inputs = interpreter.get_input_details()[0]
            picture = np.random.default_rng(0).random(inputs["shape"], np.float32)
            interpreter.set_tensor(inputs["index"], picture)
            interpreter.invoke()
            network = Network(name)
            network.run(picture[0])
            start = time.process_time()
            results = network.run(picture[0])
            spent = time.process_time() - start
            for output in interpreter.get_output_details():
                expected = interpreter.get_tensor(output["index"])
                found = next(result for result in results.values() if result.size == expected.size)
                difference = float(np.abs(found.reshape(expected.shape) - expected).max())
                print(f"{name}: {difference:.2g} of {float(np.abs(expected).max()):.3g}, {spent * 1000:.0f} ms")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
