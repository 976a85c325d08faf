"""Commands beside the fit: data, templates, cleaning, information on potentials."""
