"""Who proposes (NNI's tuners, wrapped) and who runs trials where. Nothing else of stemlab imports nni."""
