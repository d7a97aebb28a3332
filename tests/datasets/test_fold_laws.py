"""Laws of folds and of joining, over whatever groups there are."""

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nnunetv2_lngswr.datasets.near_duplicates import NearDuplicate, join_groups, leaks
from nnunetv2_lngswr.datasets.splits import make_folds

LAW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CASES = st.text(min_size=1, max_size=8)
GROUPS = st.dictionaries(CASES, st.sampled_from("abcdefghij"), min_size=2, max_size=40)


@st.composite
def grouped(draw):
    """(groups, folds, seed) that folds can be made of."""
    groups = draw(GROUPS)
    assume(len(set(groups.values())) >= 2)
    folds = draw(st.integers(2, len(set(groups.values()))))
    return groups, folds, draw(st.integers(0, 3))


@st.composite
def paired(draw):
    """(groups, pairs of cases of different groups)."""
    groups = draw(GROUPS)
    cases = st.sampled_from(sorted(groups))
    drawn = draw(st.lists(st.tuples(cases, cases), max_size=12))
    found = [NearDuplicate(a=a, b=b, distance=0) for a, b in drawn if groups[a] != groups[b]]
    return groups, found


@LAW
@given(grouped())
def test_every_case_is_in_one_validation_fold_and_no_group_is_divided(made):
    groups, folds, seed = made
    found = make_folds(groups, folds=folds, seed=seed)
    assert len(found) == folds and all(fold["val"] for fold in found)
    assert sorted(case for fold in found for case in fold["val"]) == sorted(groups)
    for fold in found:
        assert sorted([*fold["train"], *fold["val"]]) == sorted(groups)
        assert not {groups[c] for c in fold["train"]} & {groups[c] for c in fold["val"]}


@LAW
@given(grouped(), st.randoms(), st.dictionaries(CASES, st.sampled_from("xy")))
def test_the_order_of_the_input_does_not_matter(made, random, strata):
    groups, folds, seed = made
    mixed = list(groups.items())
    random.shuffle(mixed)
    there = {case: stratum for case, stratum in strata.items() if case in groups}
    one = make_folds(groups, folds=folds, seed=seed, strata=there)
    assert one == make_folds(dict(mixed), folds=folds, seed=seed, strata=there)


@LAW
@given(paired())
def test_joined_groups_hold_both_cases_of_each_pair_and_divide_no_group(made):
    groups, pairs = made
    joined = join_groups(groups, pairs)
    assert joined.keys() == groups.keys()
    assert all(joined[pair.a] == joined[pair.b] for pair in pairs)
    # whole groups move, and only into groups that were there
    assert len({(groups[case], joined[case]) for case in groups}) == len(set(groups.values()))
    assert set(joined.values()) <= set(groups.values())
    # nothing more is joined than the pairs tie together
    assert len(set(joined.values())) >= len(set(groups.values())) - len(pairs)
    if len(set(joined.values())) >= 2:
        assert leaks(make_folds(joined, folds=2), pairs) == []


@LAW
@given(paired(), st.randoms())
def test_the_order_of_the_pairs_does_not_matter(made, random):
    groups, pairs = made
    turned = [NearDuplicate(a=p.b, b=p.a, distance=0) for p in pairs]
    random.shuffle(turned)
    assert join_groups(groups, pairs) == join_groups(groups, turned)
    assert join_groups(join_groups(groups, pairs), []) == join_groups(groups, pairs)
