def ladder_start(): pass
def build_potential(): pass
