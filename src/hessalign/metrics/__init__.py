r"""How good predictions are: over all samples, for each domain and for each group; the worst, and the mean.

| metric | of one slice of the samples |
|---|---|
| ``accuracy`` | share of samples whose most probable class is theirs |
| ``balanced_accuracy`` | mean over the classes present of the share of each that is found |
| ``macro_f1`` | mean over the classes present of ``2 hits / (true + predicted)`` |
| ``auroc`` | area under the ROC curve; mean over the classes present, each against the rest; needs two |
| ``log_loss`` | mean of ``−log p`` of the samples' classes |
| ``ece`` | expected calibration error ``Σ_b (n_b / n) abs(accuracy_b − confidence_b)`` of equal bins |

A class is present in a slice if a sample of it is; so a domain without a class is not blamed for it.

There are two means over groups, and publications mix them up: every group counts the same
(``mean_group_accuracy``), or each by its share of the *training* samples (``training_mean_group_accuracy``;
Sagawa et al., "Distributionally Robust Neural Networks", ICLR 2020, and most that follow). The plain
``accuracy`` is a third number: each group by its share of the samples at hand.

Records of runs hold these numbers for each domain and split, see
[measure_split][hessalign.metrics.measure_split].
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
