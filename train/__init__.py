"""`python -m train`: data, losses, the training loop and evaluation. Imported as `refavs_rt.train`."""
