"""Names of algorithms and datasets as tables print them, in the order in which tables list them."""

from collections.abc import Iterable, Mapping

ALGORITHM_LABELS = {
    "erm": "ERM",
    "irm": "IRM",
    "group_dro": "GroupDRO",
    "mixup": "Mixup",
    "mldg": "MLDG",
    "coral": "CORAL",
    "mmd": "MMD",
    "dann": "DANN",
    "cdann": "CDANN",
    "mtl": "MTL",
    "sagnet": "SagNet",
    "arm": "ARM",
    "vrex": "V-REx",
    "rsc": "RSC",
    "and_mask": "AND-mask",
    "sand_mask": "SAND-mask",
    "fish": "Fish",
    "fishr": "Fishr",
    "hgp": "HGP",
    "hutchinson": "Hutchinson",
    "exact_diagonal": "Exact diagonal",
    "exact_hessian": "Exact Hessian",
    "flat_head": "Flat head",
    "cma": "CMA",
    "sd": "SD",
    "ib_erm": "IB-ERM",
    "ib_irm": "IB-IRM",
    "causirl_coral": "CausIRL-CORAL",
    "causirl_mmd": "CausIRL-MMD",
    "eqrm": "EQRM",
    "rdm": "RDM",
    "trm": "TRM",
    "cad": "CAD",
    "cond_cad": "CondCAD",
    "self_reg": "SelfReg",
    "iga": "IGA",
    "erm_plus_plus": "ERM++",
    "transfer": "Transfer",
    "urm": "URM",
    "adrmx": "ADRMX",
}
"""The order is that of the paper's Tables 9 and 10; others follow."""

DATASET_LABELS = {
    "colored_mnist": "Colored MNIST",
    "rotated_mnist": "Rotated MNIST",
    "vlcs": "VLCS",
    "pacs": "PACS",
    "office_home": "OfficeHome",
    "terra_incognita": "TerraIncognita",
    "domain_net": "DomainNet",
    "sviro": "SVIRO",
    "wilds_camelyon": "WILDS-Camelyon",
    "wilds_fmow": "WILDS-FMoW",
    "spawrious_o2o_easy": "Spawrious O2O easy",
    "spawrious_o2o_medium": "Spawrious O2O medium",
    "spawrious_o2o_hard": "Spawrious O2O hard",
    "spawrious_m2m_easy": "Spawrious M2M easy",
    "spawrious_m2m_medium": "Spawrious M2M medium",
    "spawrious_m2m_hard": "Spawrious M2M hard",
}
"""The order is DomainBed's."""


def algorithm_label(name: str) -> str:
    """How tables print an algorithm, its variant included; an unknown one keeps its name."""
    plain = without_variant(name).split(" + ", maxsplit=1)[0]
    return ALGORITHM_LABELS.get(plain, plain) + name.removeprefix(plain)


METRIC_LABELS = {"macro_f1": "macro F1", "auroc": "AUROC", "log_loss": "log-loss", "ece": "ECE"}


def metric_label(name: str) -> str:
    """How tables print a metric: ``"worst-group log-loss"`` say."""
    for prefix, words in {"worst_group_": "worst-group ", "mean_group_": "mean-group "}.items():
        if name.startswith(prefix):
            return words + metric_label(name.removeprefix(prefix))
    return METRIC_LABELS.get(name, name.replace("_", " "))


def metric_unit(name: str) -> str:
    """Of a table's figures, which are all times 100."""
    return "hundredths of a nat" if name.endswith("log_loss") else "percent"


def with_variant(name: str, variant: str) -> str:
    """``"hutchinson (variant domainbed)"`` say; the plain name if there is no variant to tell."""
    return f"{name} ({variant})" if variant else name


def without_variant(name: str) -> str:
    """The algorithm's own name."""
    return name.split(" (", maxsplit=1)[0]


def dataset_label(name: str) -> str:
    """How tables print a dataset; an unknown one keeps its name."""
    return DATASET_LABELS.get(name, name)


def sorted_algorithms(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of tables; unknown ones follow by alphabet, variants too."""
    return _sorted(names, ALGORITHM_LABELS)


def sorted_datasets(names: Iterable[str]) -> list[str]:
    """Each name once, in the order of tables; unknown ones follow by alphabet."""
    return _sorted(names, DATASET_LABELS)


def _sorted(names: Iterable[str], labels: Mapping[str, str]) -> list[str]:
    places = {name: place for place, name in enumerate(labels)}
    return sorted(set(names), key=lambda name: (places.get(without_variant(name), len(places)), name))
