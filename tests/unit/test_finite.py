import numpy as np
import pytest

from anograd.finite import Flaw, check_finite, refuse


def test_finite_numbers_pass():
    check_finite(np.zeros((3, 2)))
    check_finite(np.zeros((0, 2)))
    check_finite(np.array([[1, 2]]))
    check_finite(np.full((100, 2), 3e38, dtype=np.float32))  # their sum is not finite


def test_the_cell_that_is_not_finite_is_named():
    table = np.zeros((20, 4))
    table[17, 3] = table[18, 0] = np.nan
    expected = (
        r"X holds NaN at row 17, column 3 \('amount'\).*\(2 such cells in all\).*drop .*missing='impute'"
    )
    with pytest.raises(ValueError, match=expected):
        refuse([Flaw.find(table)], ["a", "b", "c", "amount"])
    with pytest.raises(ValueError, match="NaN at row 17, column 3, counted from 0"):
        check_finite(table)
    with pytest.raises(ValueError, match=r"X holds infinity at row 0, column 1,"):
        check_finite(np.array([[0.0, -np.inf]]))
    with pytest.raises(ValueError, match="holds NaN"):
        check_finite(np.array([[np.inf, 0.0], [np.nan, 0.0]])[::-1])
    images = np.zeros((3, 2, 4, 5), dtype=np.float32)
    images[2, 1, 3, 4] = np.inf
    with pytest.raises(
        ValueError, match=r"infinity at row 2, channel 1, pixel \(3, 4\).*drop the rows"
    ) as caught:
        check_finite(images)
    assert "impute" not in str(caught.value)


def test_flaws_of_parts_are_told_as_one():
    flaws = [Flaw(7, (1,), "infinity", 2), Flaw(7, (0,), "NaN", 1), Flaw(9, (2,), "NaN", 4)]
    with pytest.raises(ValueError, match=r"NaN at row 7, column 0 \('a'\), .*\(7 such cells in all\)"):
        refuse(flaws, ["a", "b", "c"])
    refuse([])
