"""`refavs-export`: from a checkpoint to a bundle of ONNX graphs. Imported as `refavs_rt.export`."""
