"""Elements, blocks, functions and their couplings."""

from pacehpc.basis.couplings import complete_couplings, couplings, independent_couplings, m_terms, merged_terms
from pacehpc.basis.enumeration import Function, block_functions, power_order, possible_blocks
from pacehpc.basis.keywords import element_names, resolve

__all__ = [
    "Function",
    "block_functions",
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
