"""The parts of docs/colored-mnist.md, which write_colored_mnist.py puts together."""
