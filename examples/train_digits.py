"""Learn to read handwritten digits: a small neural network on the 1,797 images that scikit-learn ships.

    trellis submit --wait examples/train_digits.py

Prints the loss of each epoch, reports it as a metric, and saves the network and what it mixes up as artifacts.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from trellis import runtime

EPOCHS = 20
SEED = 7


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    train, test, train_digits, test_digits = train_test_split(images, digits, test_size=0.25, random_state=SEED)
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    print(f"{len(train)} images to learn from, {len(test)} to be examined on", flush=True)

    network = MLPClassifier(hidden_layer_sizes=(128, 64), batch_size=32, learning_rate_init=0.001, random_state=SEED)
    for epoch in range(1, EPOCHS + 1):
        network.partial_fit(train, train_digits, classes=np.unique(digits))
        accuracy = float(network.score(test, test_digits))
        print(f"epoch {epoch:2d}  loss {network.loss_:.4f}  accuracy {accuracy:.3f}", flush=True)
        runtime.log_metric("loss", float(network.loss_), step=epoch)
        runtime.log_metric("accuracy", accuracy, step=epoch)

    save(network, scaler)
    mixed_up = confusion_matrix(test_digits, network.predict(test))
    Path("confusion.json").write_text(json.dumps(mixed_up.tolist()))
    runtime.save_artifact("confusion.json")
    wrong = int(mixed_up.sum() - np.trace(mixed_up))
    print(f"{wrong} of {len(test)} digits were read wrongly", flush=True)


def save(network: MLPClassifier, scaler: StandardScaler) -> None:
    """The weights as plain arrays: anybody can load them without running code from the file."""
    arrays = {f"weights_{n}": layer for n, layer in enumerate(network.coefs_)}
    arrays |= {f"biases_{n}": layer for n, layer in enumerate(network.intercepts_)}
    np.savez_compressed("digits.npz", mean=scaler.mean_, scale=scaler.scale_, **arrays)
    runtime.save_artifact("digits.npz")


if __name__ == "__main__":
    main()
