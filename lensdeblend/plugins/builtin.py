"""The methods that come with the package: declarations, nothing imported."""

from __future__ import annotations

from lensdeblend.plugins.hookspecs import hookimpl
from lensdeblend.plugins.method import Method


@hookimpl
def lensdeblend_simulators():
    yield Method(
        name="lenstronomy",
        target="lensdeblend.simulators.lenstronomy:Lenstronomy",
        summary="Lenses and blends by lenstronomy's deflections and light profiles",
        requires=("lenstronomy",),
        reference="2018PDU....22..189B",
    )
    yield Method(
        name="galsim",
        target="lensdeblend.simulators.galsim:GalSim",
        summary="Blends and single galaxies drawn by GalSim, real galaxies included",
        requires=("galsim",),
        reference="2015A&C....10..121R",
    )
    yield Method(
        name="torch",
        target="lensdeblend.simulators.torch:Torch",
        summary="Lenses and blends in batches on CPU or GPU, differentiable",
        requires=("torch",),
        reference="2015A&A...580A..79T",
    )


@hookimpl
def lensdeblend_reconstructors():
    yield Method(
        name="forward",
        target="lensdeblend.reconstructors.forward:Forward",
        summary="Damped least-squares fit of lens, source and lens light with covariance",
        requires=("torch",),
        reference="2015A&A...580A..79T",
    )
    yield Method(
        name="unet",
        target="lensdeblend.reconstructors.unet:UNet",
        summary="Trained networks: a regressor reads the lens, a U-Net draws the source; seconds for thousands",
        requires=("torch", "safetensors"),
        reference="2015arXiv150504597R",
    )
    yield Method(
        name="unet-paper",
        target="lensdeblend.reconstructors.unet:UNetPaper",
        summary="The published CNN and U-Net, for noise-free images of one scale and PSF",
        requires=("torch", "safetensors"),
        reference="2015arXiv150504597R",
    )
    yield Method(
        name="posterior",
        target="lensdeblend.reconstructors.posterior:Posterior",
        summary="Neural posterior estimation: samples of lens and source from a spline flow, fitted and re-weighted",
        requires=("torch", "zuko", "safetensors"),
        reference="2016arXiv160506376P",
    )
    yield Method(
        name="pixelated",
        target="lensdeblend.reconstructors.pixelated:Pixelated",
        summary="Semi-linear inversion: the source as regularised pixels, the lens at the most evidence",
        requires=("torch",),
        reference="2006MNRAS.371..983S",
    )
    yield Method(
        name="lenstronomy",
        target="lensdeblend.reconstructors.lenstronomy:Lenstronomy",
        summary="lenstronomy's FittingSequence: particle swarm, then emcee; Sérsic or shapelet source",
        requires=("lenstronomy",),
        reference="2018PDU....22..189B",
    )


@hookimpl
def lensdeblend_deblenders():
    yield Method(
        name="joint",
        target="lensdeblend.deblenders.joint:Joint",
        summary="All galaxies of a blend fitted at once through the PSF, in all bands, with errors",
        requires=("torch", "photutils", "skimage"),
        reference="2018A&C....24..129M",
    )
    yield Method(
        name="photutils",
        target="lensdeblend.deblenders.photutils:Photutils",
        summary="The classical answer: photutils' segmentation, the data divided among symmetric templates",
        requires=("photutils", "skimage"),
        reference="1996A&AS..117..393B",
    )
    yield Method(
        name="lens",
        target="lensdeblend.deblenders.lens:Lens",
        summary="The lens galaxy apart from the arcs around it, by the lens equation",
        requires=("torch", "photutils"),
        reference="2006ApJ...638..703B",
    )
    yield Method(
        name="vae",
        target="lensdeblend.deblenders.vae:Vae",
        summary="A generative prior: latent vectors of all galaxies fitted, and sampled, under the exact likelihood",
        requires=("torch", "zuko", "safetensors", "photutils", "skimage"),
        reference="2021MNRAS.500..531A",
    )
    yield Method(
        name="scarlet",
        target="lensdeblend.deblenders.scarlet:Scarlet",
        summary="scarlet2, to compare with: free images or Sérsics times fluxes by band, by gradient descent in jax",
        requires=("scarlet2", "photutils", "skimage"),
        reference="2018A&C....24..129M",
    )
    yield Method(
        name="scarlet-lite",
        target="lensdeblend.deblenders.scarlet_lite:ScarletLite",
        summary="The deblender of the Rubin Observatory, to compare with: monotonic images times fluxes by band",
        requires=("lsst.scarlet.lite @ git+https://github.com/lsst/scarlet_lite", "photutils", "skimage"),
        reference="2018A&C....24..129M",
    )
    yield Method(
        name="gan-paper",
        target="lensdeblend.deblenders.gan:GanPaper",
        summary="The published setting of the GAN: two galaxies in a colour picture, the brighter of two pixels",
        requires=("torch", "photutils", "safetensors"),
        reference="2019MNRAS.485.2617R",
    )
    yield Method(
        name="gan",
        target="lensdeblend.deblenders.gan:Gan",
        summary="A trained generator draws each galaxy, the data say how bright it is",
        requires=("torch", "photutils", "safetensors"),
        reference="2019MNRAS.485.2617R",
    )


@hookimpl
def lensdeblend_generators():
    yield Method(
        name="vae-flow",
        target="lensdeblend.generators.vae_flow:VaeFlow",
        summary="Sérsic profiles that depart from themselves as a trained network knows, in one band or three",
        requires=("torch", "zuko", "safetensors"),
        reference="2021MNRAS.504.5543L",
    )
    yield Method(
        name="procedural",
        target="lensdeblend.generators.procedural:Procedural",
        summary="Bulge, disc, bar, arms, ring, knots and dust, each with its colour; sized and shaped as wished",
        requires=("torch", "galsim"),
        reference="1998MNRAS.299..685S",
    )
    yield Method(
        name="sersic",
        target="lensdeblend.generators.sersic:Sersic",
        summary="Sérsic profiles drawn by GalSim, what is not wished from a fit to COSMOS",
        requires=("galsim", "torch"),
        reference="2015A&C....10..121R",
    )
    yield Method(
        name="cosmos",
        target="lensdeblend.generators.cosmos:Cosmos",
        summary="Real galaxies of a GalSim catalogue, deconvolved, turned, sheared and scaled as wished",
        requires=("galsim", "torch"),
        reference="2012MNRAS.420.1518M",
    )


@hookimpl
def lensdeblend_superresolvers():
    yield Method(
        name="physics",
        target="lensdeblend.superresolvers.physics:Physics",
        summary="Lens, clumps and source read by a network trained on low resolution alone, fitted, drawn finer",
        requires=("torch", "safetensors"),
    )
    yield Method(
        name="forward",
        target="lensdeblend.superresolvers.forward:Forward",
        summary="Lens and source fitted, drawn on finer pixels, with mass maps and errors",
        requires=("torch",),
        reference="2015A&A...580A..79T",
    )
    yield Method(
        name="physics-paper",
        target="lensdeblend.superresolvers.physics_paper:PhysicsPaper",
        summary="The published residual CNN: a radial deflection, and a disc lensed by it; never saw the finer truth",
        requires=("torch", "safetensors"),
        reference="2020ApJ...893...15A",
    )
    yield Method(
        name="srgan",
        target="lensdeblend.superresolvers.srgan:Srgan",
        summary="The published decoder behind a generator that was trained against three critics",
        requires=("torch", "safetensors"),
        reference="2016arXiv160904802L",
    )
    yield Method(
        name="rcan-supervised",
        target="lensdeblend.superresolvers.rcan_supervised:RcanSupervised",
        summary="A residual channel-attention network that has seen the finer truth, to hold the others against",
        requires=("torch", "safetensors"),
        reference="2018arXiv180702758Z",
    )
    yield Method(
        name="interpolation",
        target="lensdeblend.superresolvers.interpolation:Interpolation",
        summary="Bicubic, Lanczos or spline interpolation, flux conserved: the floor",
        reference="1981ITASS..29.1153K",
    )
