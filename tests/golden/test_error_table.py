"""docs/errors.md says what is so, and has every case."""

import error_table


def test_page_is_what_the_code_says():
    page = error_table.PAGE.read_text()
    assert page == error_table.renewed(page)


def test_page_has_every_wrong_case():
    assert sorted(error_table.rows(error_table.PAGE.read_text())) == sorted(
        case["name"] for case in error_table.wrong_cases()
    )
