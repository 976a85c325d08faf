def ladder_step_size(): pass
def next_ladder_potential(): pass
