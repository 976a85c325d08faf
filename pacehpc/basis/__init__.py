"""Elements, blocks, functions and their couplings."""

from pacehpc.basis.couplings import complete_couplings, couplings, independent_couplings, m_terms, merged_terms
from pacehpc.basis.enumeration import Function, block_functions, body_order, possible_blocks, power_order
from pacehpc.basis.keywords import KEYWORDS, block_name, element_names, resolve

__all__ = [
    "KEYWORDS",
    "Function",
    "block_functions",
    "block_name",
    "body_order",
    "complete_couplings",
    "couplings",
    "element_names",
    "independent_couplings",
    "m_terms",
    "merged_terms",
    "possible_blocks",
    "power_order",
    "resolve",
]
