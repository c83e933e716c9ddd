"""Subsets of modalities."""

from ebmvae.evaluation.subsets import observed_subsets, subset_name, subsets


def test_subsets_are_in_order_of_size():
    assert [*map("".join, subsets("abc"))] == ["a", "b", "c", "ab", "ac", "bc", "abc"]
    assert [*map("".join, subsets("abcd", 3))] == ["abc", "abd", "acd", "bcd"]


def test_subset_name():
    assert subset_name(("m1", "m4")) == "m1+m4" and subset_name(()) == "none"


def test_nothing_then_all_but_the_whole_is_observed(capsys):
    assert observed_subsets(["a", "b"], 64) == [(), ("a",), ("b",)]
    every = [(), *subsets("abcde")[:-1]]
    assert observed_subsets("abcde", 10) == every and capsys.readouterr().err == ""


def test_of_too_many_subsets_the_same_ones_are_drawn_in_every_call(capsys):
    drawn = observed_subsets("abcdef", 6)
    assert drawn == observed_subsets("abcdef", 6)
    assert "6 of 15 subsets of size 2, drawn at random" in capsys.readouterr().err
    for size in range(1, 6):
        part, every = [s for s in drawn if len(s) == size], subsets("abcdef", size)
        assert part == [s for s in every if s in part] and len(part) == 6
    assert drawn[7:13] != subsets("abcdef", 2)[:6]
