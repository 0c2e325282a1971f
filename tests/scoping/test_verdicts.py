"""Problems with a known answer: fair dice, lookups, rules, losing and winning bets."""

import msgspec
import numpy as np
import pytest

import noria as nr
from noria.core import DeclarationError, Verdict
from noria.scoping import examine
from noria.system import Fitness


def learnable(random, frame):
    """Like spam: many weak signs together."""
    logit = 1.2 * frame["x"].to_numpy() + 1.2 * frame["z"].to_numpy() + (frame["kind"] == "a").to_numpy()
    return random.random(frame.height) < 1 / (1 + np.exp(-logit))


def checks(charter, name):
    return [check for check in charter.checks if check.name == name]


def test_spam_is_a_go(engine, declare, rows):
    made = examine(engine, declare(), rows(learnable))
    assert made.decision == "go", made.reasons
    assert checks(made, "learnable")[0].verdict is Verdict.PASS
    assert made.break_even < made.reachable.low < made.reachable.high <= 1, "both are an AUC"
    assert next(check for check in made.checks if check.name == "pays").verdict is Verdict.PASS
    assert 0.5 < made.break_even < made.requirements["auc"]
    assert made.base_rate.low < 0.55 < made.base_rate.high


@pytest.mark.parametrize("seed", range(4))
def test_a_fair_die_is_a_no_go(engine, declare, rows, seed):
    made = examine(engine, declare(), rows(lambda random, frame: random.random(frame.height) < 1 / 6, seed=seed))
    assert made.decision == "no-go"
    assert any("chance" in reason for reason in made.reasons)


def test_a_fair_die_with_six_classes_is_a_no_go(engine, declare, rows):
    system = declare(
        label={"task": "multiclass"},
        objective={"value": nr.Value("case when act and label = '6' then 5 when act then -1 else 0 end")},
    )
    made = examine(engine, system, rows(lambda random, frame: random.choice(list("123456"), frame.height)))
    assert made.decision == "no-go"


def test_address_to_zip_code_is_a_lookup(engine, declare, rows):
    """400 addresses in 40 zip codes, told by the address alone."""
    system = declare(
        features=[nr.Source("asked", None, key="id", owner="us").columns("address")],
        label={"task": "multiclass"},
        objective={"value": nr.Value("case when act and label = 'zip1' then 1 else 0 end")},
    )
    frame = rows(
        lambda random, frame: np.array([f"zip{int(a[4:]) % 40}" for a in frame["address"]]),
        address=lambda random, n: [f"road{i}" for i in random.integers(0, 400, n)],
    )
    made = examine(engine, system, frame)
    assert made.decision == "no-go"
    assert any("use a lookup" in reason and "address" in reason for reason in made.reasons)
    assert any("fewer than 100" in check.detail for check in checks(made, "examples a class"))


def test_an_identifier_that_never_returns_is_no_lookup(engine, declare, rows):
    frame = rows(learnable, id=lambda random, n: [f"row{i}" for i in range(n)])
    assert checks(examine(engine, declare(), frame), "not a lookup")[0].verdict is Verdict.PASS


def test_a_number_on_a_straight_line_is_a_lookup(engine, declare, rows):
    system = declare(
        label={"task": "regression"},
        objective={"metric": "mae", "value": nr.Value("-abs(act - label)")},
        decide=nr.Decide("score"),
    )
    made = examine(engine, system, rows(lambda random, frame: 3 * frame["x"].to_numpy() - 2))
    assert made.decision == "no-go"
    assert any("lookup" in reason for reason in made.reasons)


def test_a_rule_that_reaches_the_models_comes_first(engine, declare, rows):
    """One feature carries it all: a declared rule suffices."""
    system = declare(candidates=[nr.Prior(), nr.Rule("x", "by x")])
    frame = rows(lambda random, frame: random.random(frame.height) < 1 / (1 + np.exp(-2 * frame["x"].to_numpy())))
    made = examine(engine, system, frame)
    assert made.decision == "partial"
    assert any(reason.startswith("rule first: by_x") for reason in made.reasons)
    without = examine(engine, declare(candidates=[nr.Prior()]), rows(learnable))
    assert not any(reason.startswith("rule first") for reason in without.reasons)


def test_the_last_label_comes_first_where_it_beats_the_models(engine, declare, rows):
    """The label stays as it was for a while: the last closed label says more than any feature."""

    def sticky(random, frame):
        flips = random.random(frame.height) < 0.02
        return np.cumsum(flips) % 2

    system = declare(candidates=[nr.Prior(), nr.Last()])
    made = examine(engine, system, rows(lambda r, f: np.where(r.random(f.height) < 0.1, learnable(r, f), sticky(r, f))))
    assert made.decision in ("partial", "no-go")
    losses = {b.name: b.metric.value for b in made.baselines}
    assert losses["last"] < min(losses["linear"], losses["boosting"], losses["prior"])
    rule = checks(made, "no rule suffices")
    assert [(check.subject, check.verdict) for check in rule] == [("last", Verdict.FAIL)]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("case when act and label then 3 when act then 1 else 0 end", "no prediction, however good"),  # acting always pays
        ("0", "no prediction, however good"),
        ("case when act and label then 0.01 when act then -1 else 0 end", None),  # perfect helps, but hardly ever
    ],
)
def test_value_that_no_prediction_improves(engine, declare, rows, sql, reason):
    made = examine(engine, declare(objective={"value": nr.Value(sql)}), rows(learnable))
    assert made.decision != "go"
    if reason:
        assert made.break_even is None
        assert any(reason in said for said in made.reasons)


def test_a_person_can_stop_or_limit(engine, declare, rows):
    frame = rows(learnable)
    stopped = examine(engine, declare(objective={"fitness": Fitness(unethical="it decides who lives")}), frame)
    assert stopped.decision == "no-go"
    assert any("second reviewer" in reason for reason in stopped.reasons)
    simpler = examine(engine, declare(objective={"fitness": Fitness(simpler_solution="ask the customer")}), frame)
    assert simpler.decision == "partial"
    partly = examine(engine, declare(objective={"fitness": Fitness(only_for="flights to Boston")}), frame)
    assert any("flights to Boston" in reason for reason in partly.reasons)


def test_a_target_beyond_people_is_flagged(engine, declare, rows):
    frame = rows(learnable)
    for metric, target, human, flagged in (
        ("auc", 0.95, 0.9, True),
        ("auc", 0.85, 0.9, False),
        ("log_loss", 0.3, 0.4, True),
        ("log_loss", 0.5, 0.4, False),
    ):
        made = examine(engine, declare(objective={"metric": metric, "target": target, "human": human}), frame)
        found = checks(made, "target against human")
        assert (found[0].verdict is Verdict.FAIL) is flagged
        assert (made.decision == "partial") is flagged


def test_refusals_name_everything_at_once(engine, declare, rows):
    nobody = nr.Source("asked", None, key="id", time="at")
    system = declare(predict=nobody, features=[nobody.columns("x")], candidates=[nr.Linear()], objective={"problem": " "})
    with pytest.raises(DeclarationError) as caught:
        examine(engine, system, rows(learnable))
    assert {problem.place for problem in caught.value.problems} == {"objective.problem", "sources.asked.owner", "candidates"}


@pytest.mark.parametrize(
    "output",
    [
        ("binary", "mae", "act when expected value > 0"),
        ("regression", "auc", "score"),
        ("binary", "log_loss", "quantile 0.8"),
        ("multiclass", "log_loss", "act when score > 0.5"),
        ("multiclass", "auc", "largest expected value"),
        ("binary", "log_loss", "perhaps"),
    ],
)
def test_a_wrong_output_type_is_refused(engine, declare, rows, output):
    task, metric, policy = output
    system = declare(label={"task": task}, objective={"metric": metric}, decide=nr.Decide(policy))
    with pytest.raises(DeclarationError):
        examine(engine, system, rows(learnable))


def test_labels_of_another_type_than_declared_are_a_no_go(engine, declare, rows):
    system = declare(
        label={"task": "regression"},
        objective={"metric": "mae", "value": nr.Value("-abs(act - label)")},
        decide=nr.Decide("score"),
    )
    made = examine(engine, system, rows(learnable))
    assert made.decision == "no-go"
    assert any("declared type" in reason for reason in made.reasons)


def test_few_examples_a_class_warn(engine, declare, rows):
    """A thousand classes over five thousand rows."""
    system = declare(label={"task": "multiclass"}, objective={"value": nr.Value("case when act then 1 else 0 end")})
    made = examine(engine, system, rows(lambda random, frame: random.integers(0, 1000, frame.height).astype(str), a_day=120))
    assert checks(made, "examples a class")[0].verdict is Verdict.FAIL
    assert made.labels["classes"] > 900
    assert any("too few examples" in reason for reason in made.reasons)


def test_framings(engine, declare, rows):
    binary = examine(engine, declare(), rows(learnable))
    assert any("regression of minutes, cut at 15" in other for other in binary.alternatives)
    number = declare(
        label={"task": "regression"},
        objective={"metric": "mae", "value": nr.Value("-abs(act - label)")},
        decide=nr.Decide("score"),
    )

    def noisy(random, frame):
        return 2 * frame["x"].to_numpy() + frame["z"].to_numpy() + random.standard_normal(frame.height)

    regression = examine(engine, number, rows(noisy))
    assert regression.decision == "go", regression.reasons
    assert any(other.startswith("binary") for other in regression.alternatives)
    assert 0 < regression.break_even <= 0.3

    def growing(random, frame):
        days = np.arange(frame.height) // 60
        return np.array([f"c{k}" for k in random.integers(0, 3 + days // 8)])

    classes = declare(
        label={"task": "multiclass"},
        objective={"value": nr.Value("case when act and label = 'c0' then 2 when act then -1 else 0 end")},
    )
    assert any("new classes keep appearing" in other for other in examine(engine, classes, rows(growing)).alternatives)


def test_the_charter_is_a_function_of_its_rows_and_survives_json(engine, declare, rows):
    from noria.core import digest
    from noria.records import Charter

    frame = rows(learnable)
    made = examine(engine, declare(), frame)
    again = examine(engine, declare(), frame.sample(fraction=1.0, shuffle=True, seed=3))
    assert digest(made) == digest(again)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Charter) == made


def test_delays_and_load_are_reported(engine, declare, rows):
    made = examine(
        engine,
        declare(objective={"guardrails": [nr.AtLeast("precision", 0.3)]}),
        rows(learnable),
    )
    assert made.labels["delay_p50_hours"] == pytest.approx(0.5)
    assert made.labels["labelled"] == made.labels["n_true"] + made.labels["n_false"] == 2400
    assert made.requirements["at_least_precision"] == 0.3
    assert made.requirements["predictions_a_day"] == pytest.approx(60)
    low, point, high = (made.requirements[f"day_per_auc_point{end}"] for end in ("_low", "", "_high"))
    assert 0 < low <= point <= high


def test_almost_no_data(engine, declare, rows):
    few = rows(learnable, days=2, a_day=5)
    made = examine(engine, declare(), few)
    assert made.decision == "no-go"
    assert any("too few labels" in reason for reason in made.reasons)
    assert examine(engine, declare(), few.head(0)).decision == "no-go"
