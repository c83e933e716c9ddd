"""The classifiers and the feature net: what they read, and that an image sees no other."""

import pytest
import torch

from ebmvae.evaluation.classifiers import Classifier, FeatureNet
from tests.unit.reference import build

SHAPES = pytest.mark.parametrize("shape", [(3, 28, 28), (1, 20, 36), (3, 29, 17)], ids=str)


def feature_net(shape):
    return build(FeatureNet, shape, n_classes=7, n_modalities=3, feature_dim=16).eval()


@SHAPES
def test_every_weight_is_used(shape):
    x = torch.rand(4, *shape)
    for net in (build(Classifier, shape, 7), feature_net(shape)):
        out = net(x)
        sum(part.square().sum() for part in (out if isinstance(out, tuple) else [out])).backward()
        assert all(weight.grad.any() for weight in net.parameters())


def test_an_evaluated_classifier_sees_one_image_at_a_time():
    """Neither dropout nor the rest of the batch changes the logits."""
    net, x = build(Classifier, (3, 28, 28), 10).eval(), torch.rand(4, 3, 28, 28)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 28, 28), (1, 20, 28), (3, 28, 9)], ids=str)
def test_every_head_reads_what_was_fitted(shape):
    """Features and heads of a smaller or grey image are those of the fitted one."""
    net, x = feature_net((3, 28, 28)), torch.rand(4, *shape)
    assert torch.equal(net.features(x), net.features(net.fitted(x)))
    for part, again in zip(net(x), net(net.fitted(x)), strict=True):
        assert torch.equal(part, again)
    assert [part.shape for part in net(x)] == [(4, 7), (4, 3), (4, 3, 2)]
    torch.testing.assert_close(net.features(x)[1:2], net.features(x[1:2]), rtol=1e-4, atol=1e-5)


def test_images_of_its_own_size_are_left_as_they_are_but_grey_has_three_equal_channels():
    """A batch of the feature net may hold no image of a modality."""
    net, x, grey = feature_net((3, 12, 10)), torch.rand(2, 3, 12, 10), torch.rand(2, 1, 6, 10)
    fitted = net.fitted(x)
    assert torch.equal(fitted, x) and fitted.data_ptr() == x.data_ptr()  # nothing is copied
    assert torch.equal(net.fitted(x[:, :1]), x[:, :1].repeat(1, 3, 1, 1))
    torch.testing.assert_close(net.fitted(grey), net.fitted(grey.repeat(1, 3, 1, 1)))
    assert net.fitted(grey[:0]).shape == (0, 3, 12, 10)


def test_enlarging_is_linear_between_the_centres_of_pixels():
    """Twice as wide: 0 and 1 become 0, 1/4, 3/4, 1; beyond the outer centres, the border."""
    x = torch.tensor([0.0, 1.0]).repeat(8, 4).expand(1, 3, 8, 8)
    expected = torch.tensor([0, 0.25, 0.75, *[0.75, 0.25, 0.25, 0.75] * 3, 1]).expand(1, 3, 8, 16)
    torch.testing.assert_close(feature_net((3, 8, 16)).fitted(x), expected)
    turned = feature_net((3, 16, 8)).fitted(x.transpose(2, 3))
    torch.testing.assert_close(turned, expected.transpose(2, 3))
