"""MVAE: a product of experts with the prior among them."""

from ebmvae.baselines import poe
from tests.unit import reference as ref
from tests.unit.reference import B, D, M


def test_loss_is_the_joint_elbo_and_that_of_each_modality_alone():
    xs, mean, logvar, decoders = ref.tuples()
    eps = ref.randn(M + 1, B, D, seed=3)
    value, parts = poe.loss(xs, mean, logvar, decoders, ref.NLL, ref.BETA, eps)
    joint = [ref.product(mean, logvar, range(M), b, prior=True) for b in range(B)]
    ref.close(parts["reconstruction"], ref.reconstruction(xs, decoders, joint, eps[0]))
    ref.close(parts["kl"], sum(ref.kl(q) for q in joint) / B)
    expected = parts["reconstruction"] + ref.BETA * parts["kl"]
    for m in range(M):
        for b in range(B):
            alone = ref.product(mean, logvar, [m], b, prior=True)
            expected += ref.nll(xs[m][b], decoders[m], alone, eps[m + 1, b]) / B
            expected += ref.BETA * ref.kl(alone) / B
    ref.close(value, expected)


def test_samples_are_of_the_product_with_the_prior():
    ref.check_product(poe.sample, prior=True)
