from __future__ import annotations

import pytest
import torch

from entitybench.baselines.panopticfcn.inference import (
    Found,
    find_centres,
    find_regions,
    fuse,
    fuse_regions,
    mask_boxes,
    mask_scores,
    peaks,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_peaks(logits: torch.Tensor, size: int) -> torch.Tensor:
    """Smooth with zeros around the map, then compare each cell with its neighbours."""
    scores, half = logits.sigmoid(), size // 2
    height, width = logits.shape
    smooth = torch.zeros_like(scores)
    for i in range(height):
        for j in range(width):
            window = scores[max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1]
            smooth[i, j] = (scores[i, j] + window.sum() / size**2) / 2
    found = torch.zeros_like(scores)
    for i in range(height):
        for j in range(width):
            around = smooth[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            if smooth[i, j] >= around.max():
                found[i, j] = smooth[i, j]
    return found


@pytest.mark.parametrize(("level", "size"), [(0, 3), (2, 3), (3, 5), (4, 5)])
def test_peaks_are_those_of_loops(level: int, size: int) -> None:
    logits = noise(2, 3, 7, 9)
    found = peaks(logits, level)
    expected = torch.stack([slow_peaks(m, size) for m in logits.flatten(0, 1)]).reshape(
        logits.shape
    )
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert 0 < (found > 0).sum() < found.numel() / 4


def test_centres_of_all_levels_in_order() -> None:
    maps = [noise(2, 3, 8, 6, seed=1), noise(2, 3, 4, 3, seed=2)]
    kernels = [noise(2, 5, 8, 6, seed=3), noise(2, 5, 4, 3, seed=4)]
    found = find_centres(maps, kernels, per_level=4, threshold=0.3)
    for image in range(2):
        rows = []
        for level, (logits, values) in enumerate(zip(maps, kernels, strict=True)):
            scores = peaks(logits, level)[image]
            places = [
                (float(scores[c, i, j]), c, values[image, :, i, j].tolist())
                for c in range(3)
                for i in range(scores.shape[1])
                for j in range(scores.shape[2])
                if scores[c, i, j] > 0
            ]
            rows += [r for r in sorted(places, reverse=True)[:4] if r[0] > 0.3]
        rows.sort(reverse=True)
        used = found.scores[image] > 0
        assert found.scores[image][used].tolist() == pytest.approx([r[0] for r in rows])
        assert found.numbers[image][used].tolist() == [r[1] for r in rows]
        torch.testing.assert_close(found.kernels[image][used], torch.tensor([r[2] for r in rows]))


def slow_fusion(
    scores: list[float], numbers: list[int], kernels: torch.Tensor, similar: float, *, apart: bool
) -> dict[int, list[int]]:
    """Return who goes to each survivor."""
    goes: dict[int, list[int]] = {}
    for j in range(len(scores)):
        if scores[j] <= 0:
            continue
        for i in range(j + 1):
            cosine = kernels[i] @ kernels[j] / (kernels[i].norm() * kernels[j].norm())
            same = not apart or numbers[i] == numbers[j]
            if i == j or (cosine >= similar and same):
                goes.setdefault(i, []).append(j)
                break
    return {i: members for i, members in goes.items() if i in members}


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_fusion_is_that_of_loops(seed: int, apart: bool) -> None:
    count = 24
    kernels = noise(2, 5, 4, seed=seed).repeat_interleave(5, 1)[:, :count]
    kernels = kernels + 0.35 * noise(2, count, 4, seed=seed + 100)
    scores = noise(2, count, seed=seed + 200).sigmoid().sort(dim=1, descending=True).values
    scores[1, 15:] = 0
    numbers = (noise(2, count, seed=seed + 300) > 0).long()
    found = fuse(Found(scores, numbers, kernels), 0.9, apart=apart)
    merged = 0
    for image in range(2):
        goes = slow_fusion(
            scores[image].tolist(), numbers[image].tolist(), kernels[image], 0.9, apart=apart
        )
        survivors = torch.nonzero(found.scores[image])[:, 0].tolist()
        assert survivors == sorted(goes)
        for i, members in goes.items():
            assert found.scores[image, i] == scores[image, i]
            torch.testing.assert_close(found.kernels[image, i], kernels[image, members].mean(0))
            merged += len(members) - 1
    assert merged > 5


def test_fusion_by_hand() -> None:
    # A is like B, B is like C, A is not like C: B goes to A, and C to B, which is gone
    angles = torch.tensor([0.0, 20.0, 40.0, 180.0]).deg2rad()
    kernels = torch.stack([angles.cos(), angles.sin()], dim=1)[None]
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    numbers = torch.zeros(1, 4, dtype=torch.int64)
    found = fuse(Found(scores, numbers, kernels), 0.9, apart=True)
    assert found.scores.tolist() == [pytest.approx([0.9, 0, 0, 0.6])]
    torch.testing.assert_close(found.kernels[0, 0], kernels[0, :2].mean(0))
    numbers[0, 1] = 1  # now B is of another class, and C stays as well
    assert fuse(Found(scores, numbers, kernels), 0.9, apart=True).scores.tolist() == scores.tolist()


def test_a_kernel_of_zeros_survives() -> None:
    found = fuse(
        Found(torch.ones(1, 2), torch.zeros(1, 2).long(), torch.zeros(1, 2, 3)), 0.9, apart=True
    )
    assert found.scores.tolist() == [[1.0, 1.0]]
    assert torch.isfinite(found.kernels).all()


def test_regions_are_those_of_loops() -> None:
    logits, kernels = noise(2, 4, 3, 5, seed=1), noise(2, 6, 3, 5, seed=2)
    logits[0, 2] -= 9  # never the best
    found = find_regions(logits, kernels, 0.72)
    dropped: list[bool] = []
    for image in range(2):
        best = logits[image].argmax(0)
        for number in range(4):
            own = best == number
            total = kernels[image][:, own].sum(1) / 15  # over all cells of the level
            torch.testing.assert_close(found.kernels[image, number], total)
            mean = float(logits[image, number][own].sigmoid().mean()) if own.any() else 0.0
            dropped.append(0 < mean <= 0.72)
            expected = mean if mean > 0.72 else 0.0
            assert float(found.scores[image, number]) == pytest.approx(expected, abs=1e-6)
    assert found.scores[0, 2] == 0
    assert any(dropped)


def test_levels_that_found_a_class_are_averaged() -> None:
    scores = torch.tensor([[[0.9, 0.5, 0.0], [0.0, 0.7, 0.0]]])  # two levels; 0 is `all things`
    kernels = torch.arange(12.0).reshape(1, 2, 3, 2)
    found = fuse_regions(scores, kernels)
    assert found.numbers.tolist() == [[1, 2]]
    assert found.scores.tolist() == [pytest.approx([0.6, 0.0])]
    assert found.kernels[0, 0].tolist() == [5.0, 6.0]  # of (2, 3) and (8, 9)
    only_second = fuse_regions(scores * torch.tensor([0.0, 1.0])[:, None], kernels)
    assert only_second.kernels[0, 0].tolist() == [8.0, 9.0]


def test_scores_and_boxes_of_masks() -> None:
    masks = torch.zeros(1, 3, 3, 4)
    masks[0, 0, 1, 1:3] = torch.tensor([0.5, 0.9])
    masks[0, 0, 2, 3] = 0.41  # inside for the score, not for the box
    masks[0, 1] = 0.4
    masks[0, 2] = 1.0
    assert mask_scores(masks).tolist() == [pytest.approx([(0.5 + 0.9 + 0.41) / 3, 0.0, 1.0])]
    assert mask_boxes(masks, 4).tolist() == [[[8, 4, 12, 8], [0, 0, 0, 0], [0, 0, 16, 12]]]
