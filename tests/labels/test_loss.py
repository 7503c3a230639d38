"""The sparse soft cross-entropy against the dense formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from slg_wds.errors import UsageError
from slg_wds.labels import SoftCrossEntropy, SoftLabels, from_topk, mix, tail_batch
from support.oracles.labels_oracle import Made, made_labels, make, oracle, rules_of


def soft(made: Made, rule: str | None = None, dtype: torch.dtype = torch.float32) -> SoftLabels:
    value = torch.from_numpy(made.value.copy())
    if made.full:
        return from_topk(None, value, made.num_classes, rule=rule, dtype=dtype)
    tail = tail_batch([made.tail], np.zeros(len(made.index)), made.num_classes)
    return from_topk(torch.from_numpy(made.index), value, made.num_classes, rule=rule, tail=tail, dtype=dtype)


def fkd(
    logits: torch.Tensor, rows: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """FKD's loss, the product of dense labels and log-probabilities of logits / temp, and its gradient, in float64."""
    logits = logits.detach().double().requires_grad_()
    loss = -(rows.double() * torch.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean()
    loss.backward()
    return loss.detach(), logits.grad


def sparse(
    logits: torch.Tensor, labels: SoftLabels, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.detach().clone().requires_grad_()
    loss = SoftCrossEntropy(temperature)(logits, labels)
    loss.backward()
    return loss.detach(), logits.grad


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(made_labels(), made_labels(full=True)),
    st.data(),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_is_the_dense_formula(
    made: Made, data: st.DataObject, temperature: float, scale: float, dtype: torch.dtype
) -> None:
    rule = data.draw(st.sampled_from(rules_of(made)))
    shape = len(made.index), made.num_classes
    logits = scale * torch.randn(shape, generator=torch.manual_seed(made.num_classes), dtype=dtype)
    loss, gradient = sparse(logits, soft(made, rule, dtype), temperature)
    wanted, wanted_gradient = fkd(logits, torch.from_numpy(oracle(made, rule)), temperature)
    assert gradient.dtype == loss.dtype == dtype
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=1e-6)
    if dtype == torch.float64:
        torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradient, wanted_gradient, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "rule", ["hard", "smoothing", "marginal_smoothing_k5", "marginal_renorm_k5", "shared_tail_k5"]
)
def test_equals_fkd_on_a_batch_of_the_usual_size(rule: str) -> None:
    made = make(0, 1024, 1000, 5, 3.0, "float16", 64)
    logits = 3 * torch.randn(1024, 1000, generator=torch.manual_seed(0))
    loss, gradient = sparse(logits, soft(made, rule))
    wanted, wanted_gradient = fkd(logits, torch.from_numpy(np.asarray(oracle_of(made, rule))))
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=0)
    assert (gradient.double() - wanted_gradient).abs().max() <= 1e-9  # the largest is 1 / 1024


def oracle_of(made: Made, rule: str) -> np.ndarray:
    # The oracle walks in Python; a batch of the usual size needs only its float64 torch counterpart, tested elsewhere.
    return soft(made, rule, torch.float64).dense().numpy()


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("rule", ["hard", "marginal_smoothing_k2", "shared_tail_k3"])
def test_gradcheck(rule: str, reduction: str) -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64), rule, torch.float64)
    logits = torch.randn(4, 7, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)
    loss = SoftCrossEntropy(0.7, reduction)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), logits)


def test_without_reduction_each_row_has_its_own_weight() -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64))
    logits = torch.randn(4, 7, generator=torch.manual_seed(0), requires_grad=True)
    weight = torch.tensor([1.0, 0.0, -2.0, 0.5])
    losses = SoftCrossEntropy(reduction="none")(logits, labels)
    (losses * weight).sum().backward()
    again = logits.detach().requires_grad_()
    rows = -(labels.dense() * torch.log_softmax(again, dim=1)).sum(dim=1)
    (rows * weight).sum().backward()
    torch.testing.assert_close(losses, rows)
    torch.testing.assert_close(logits.grad, again.grad)


def test_a_mixture_with_repeated_classes() -> None:
    sets = [soft(make(seed, 6, 30, 4, 1.0, "float16", 64), dtype=torch.float64) for seed in (1, 2, 3)]
    labels = mix([*sets, sets[0]], [1, 2, 3, 4])
    logits = torch.randn(6, 30, dtype=torch.float64, generator=torch.manual_seed(0))
    loss, gradient = sparse(logits, labels)
    wanted, wanted_gradient = fkd(logits, labels.dense())
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


def test_large_and_shifted_logits_lose_nothing() -> None:
    made = make(0, 16, 1000, 5, 3.0, "float16", 64)
    labels = soft(made)
    base = torch.randn(16, 1000, generator=torch.manual_seed(0))
    for logits in (base * 300, base + 4096.0, base - 4096.0, torch.zeros(16, 1000)):
        loss, gradient = sparse(logits, labels)
        wanted, wanted_gradient = fkd(logits, labels.dense())
        torch.testing.assert_close(loss.double(), wanted, rtol=2e-6, atol=0)
        torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_computed_in_float32(dtype: torch.dtype) -> None:
    made = make(0, 16, 1000, 5, 3.0, "float16", 64)
    logits = (3 * torch.randn(16, 1000, generator=torch.manual_seed(0))).to(dtype)
    loss, gradient = sparse(logits, soft(made))
    wanted, wanted_gradient = sparse(logits.float(), soft(made))
    assert loss.dtype == torch.float32 and gradient.dtype == dtype
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, wanted_gradient.to(dtype), rtol=0, atol=0)


def test_under_autocast_after_a_layer() -> None:
    labels = soft(make(0, 16, 100, 5, 3.0, "float16", 64))
    layer = torch.nn.Linear(8, 100)
    inputs = torch.randn(16, 8, generator=torch.manual_seed(0))
    gradients = []
    for loss in (
        lambda z: SoftCrossEntropy()(z, labels),
        lambda z: -(labels.dense() * z.log_softmax(1)).sum(1).mean(),
    ):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = layer(inputs)
            assert logits.dtype == torch.bfloat16
            value = loss(logits)
        assert value.dtype == torch.float32
        value.backward()
        gradients.append(layer.weight.grad.clone())
    assert (gradients[0] - gradients[1]).abs().max() < 0.02 * gradients[1].abs().max()


def test_the_graph_can_be_walked_again() -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64))
    logits = torch.randn(4, 7, generator=torch.manual_seed(0), requires_grad=True)
    loss = SoftCrossEntropy(2.0)(logits, labels)
    first, second, third = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(3))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-7)
    assert second.data_ptr() != first.data_ptr() and torch.equal(second, third)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(torch.autograd.grad(loss, logits, create_graph=True)[0].sum(), logits)


class LargeTensors(TorchDispatchMode):
    """Counts the memory blocks of at least `size` elements that operations make."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.made: list[torch.Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {t.untyped_storage().data_ptr() for t in (*self.made, *args) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, (tuple, list)) else [result]:
            fresh = isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in known
            if fresh and t.untyped_storage().nbytes() >= 4 * self.size:
                self.made.append(t)
        return result


@pytest.mark.parametrize("rule", ["marginal_smoothing_k5", "shared_tail_k5"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_one_buffer_serves_as_temporary_and_gradient(rule: str, temperature: float) -> None:
    made = make(0, 64, 1000, 5, 3.0, "float16", 64)
    logits = torch.randn(64, 1000, generator=torch.manual_seed(0), requires_grad=True)
    with LargeTensors(64 * 1000) as counted:
        loss = SoftCrossEntropy(temperature)(logits, soft(made, rule))
        assert len(counted.made) == 1
        (gradient,) = torch.autograd.grad(loss, logits)
        assert len(counted.made) == 1
    assert gradient.data_ptr() == counted.made[0].data_ptr()


def test_without_gradients() -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64))
    logits = torch.randn(4, 7, generator=torch.manual_seed(0))
    with torch.no_grad():
        value = SoftCrossEntropy()(logits.clone().requires_grad_(), labels)
    with torch.inference_mode():
        assert torch.equal(value, SoftCrossEntropy()(logits, labels))
    assert torch.equal(value, sparse(logits, labels)[0]) and not value.requires_grad


def test_what_cannot_be_is_refused() -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64))
    with pytest.raises(UsageError, match=r"logits have shape \(4, 8\), the labels \(4, 7\)"):
        SoftCrossEntropy()(torch.zeros(4, 8), labels)
    with pytest.raises(UsageError, match=r"logits have shape \(3, 7\)"):
        SoftCrossEntropy()(torch.zeros(3, 7), labels)
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="temperature must be above 0"):
            SoftCrossEntropy(temperature)
    with pytest.raises(UsageError, match="'sum'"):
        SoftCrossEntropy(reduction="sum")
    assert repr(SoftCrossEntropy(2.0)) == "SoftCrossEntropy(temperature=2.0, reduction='mean')"
    with pytest.raises(UsageError, match="two names of one thing"):
        SoftCrossEntropy(2.0, student_temperature=2.0)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dense", [False, True])
def test_the_students_temperature_has_two_names_and_its_square_is_an_option(
    dense: bool, reduction: str
) -> None:
    labels = soft(make(2, 4, 7, 3, 2.0, "float16", 64))
    given = labels.dense() if dense else labels
    values, gradients = [], []
    for loss in (
        SoftCrossEntropy(3.0, reduction),
        SoftCrossEntropy(temperature=3.0, reduction=reduction),
        SoftCrossEntropy(student_temperature=3.0, reduction=reduction),
        SoftCrossEntropy(student_temperature=3.0, reduction=reduction, t_squared=True),
    ):
        logits = torch.randn(4, 7, generator=torch.manual_seed(0), requires_grad=True)
        values.append(loss(logits, given))
        gradients.append(torch.autograd.grad(values[-1].sum(), logits)[0])
    for same in (1, 2):
        assert torch.equal(values[same], values[0]) and torch.equal(gradients[same], gradients[0])
    torch.testing.assert_close(values[3], 9 * values[0])
    torch.testing.assert_close(gradients[3], 9 * gradients[0])
    assert "t_squared=True" in repr(SoftCrossEntropy(t_squared=True))


def test_with_the_square_the_gradient_hardly_depends_on_the_temperature() -> None:
    """For high temperatures it is (z_student - z_teacher) / C, whatever the temperature (Hinton et al. 2015)."""
    generator = torch.manual_seed(0)
    teacher, student = (torch.randn(16, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    limit = (student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)) / 20
    for temperature in (50.0, 100.0):
        logits = student.clone().requires_grad_()
        labels = (teacher / temperature).softmax(1)
        loss = SoftCrossEntropy(student_temperature=temperature, reduction="none", t_squared=True)
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), logits)
        torch.testing.assert_close(gradient, limit, rtol=0, atol=0.2 / temperature)


@settings(max_examples=40, deadline=None)
@given(made_labels(), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_dense_labels_give_the_same_loss(made: Made, temperature: float, dtype: torch.dtype) -> None:
    labels = soft(made)
    logits = torch.randn(len(labels), made.num_classes, generator=torch.manual_seed(1)).to(dtype)
    wanted, wanted_gradient = fkd(logits, labels.dense(), temperature)
    logits.requires_grad_()
    losses = SoftCrossEntropy(temperature, "none")(logits, labels.dense())
    assert losses.shape == (len(labels),) and losses.dtype == torch.float32
    losses.mean().backward()
    torch.testing.assert_close(losses.mean().double(), wanted, rtol=1e-5, atol=1e-5)
    assert logits.grad is not None and logits.grad.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(logits.grad.double(), wanted_gradient, rtol=tolerance, atol=tolerance)


def test_class_numbers_are_not_probabilities() -> None:
    with pytest.raises(
        UsageError, match=r"the labels \(2,\); give labels, or the probabilities of all classes"
    ):
        SoftCrossEntropy()(torch.zeros(2, 5), torch.tensor([1, 3]))
