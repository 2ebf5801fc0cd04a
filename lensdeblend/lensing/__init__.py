"""The physics in torch: deflections, light, ray-tracing, convolution, linear inversion.

Plain tensors in, plain tensors out; parameters broadcast against positions, so a leading axis is a batch. Angles in
arcsec.
"""
