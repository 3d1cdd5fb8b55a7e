"""What operators get wrong in the environment."""

from __future__ import annotations

import pytest

from service.settings import Settings, unknown_settings


def test_a_misspelt_setting_is_found():
    names = ("RADIOLUCENT_DEIDENTFY", "radiolucent_model", "RADIOLUCENT_DEIDENTIFY", "PATH")
    assert unknown_settings(dict.fromkeys(names, "true")) == ["RADIOLUCENT_DEIDENTFY", "radiolucent_model"]


@pytest.mark.parametrize("name", [*Settings.model_fields, "feed_token", "load_mix", "service_host", "port_3000_tcp"])
def test_settings_and_what_others_set_are_not(name):
    assert unknown_settings({f"RADIOLUCENT_{name}".upper(): ""}) == []
