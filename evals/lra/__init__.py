"""Long Range Arena (arXiv:2011.04006): data, encoders with every mixer of the comparison, training, floors."""
