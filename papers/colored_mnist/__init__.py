"""The study of the paper's Colored MNIST experiment: Tables 7 and 8, and why they are so."""
