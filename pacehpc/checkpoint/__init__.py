"""What makes a fit outlive its job: the journal of evaluations, the checkpoint, the folder's lock, what must agree."""
