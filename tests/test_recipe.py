"""Recipes: where a stage's defaults come from, and what is refused with file and key."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dr.training import settings
from preprocess.command import cli, recipe
from preprocess.disk.errors import InputError


def parse(argv, *stages, renamed=None):
    parser = cli.make_parser("preprocess.resize", "", "")
    parser.add_argument("--size-px", type=cli.whole(32, 4096), help="side")
    parser.add_argument("--share", type=cli.number(0, 1))
    parser.add_argument("--crop", choices=("adaptive", "box"))
    parser.add_argument("--layers", type=cli.whole(1), nargs="+")
    parser.add_argument("--bounds", type=cli.number(0), nargs=2)
    parser.add_argument("--is-new", action="store_true")
    return recipe.parse(parser, argv, *(stages or ["preprocess.resize"]), renamed=renamed)


def write(path, text):
    path.write_text(text)
    return f"--recipe={path}"


def test_the_article_is_the_default_an_option_wins_and_what_nobody_names_is_none():
    assert parse([]).size_px == 512
    assert parse(["--size-px=64"]).size_px == 64
    assert parse(["--recipe", "demo"]).size_px == 160
    assert parse(["--recipe=demo", "--size-px=64"]).size_px == 64
    assert parse([]).share is None


def test_values_are_what_the_command_line_would_make_of_them(tmp_path):
    chosen = write(
        tmp_path / "own.toml", "[preprocess.resize]\nshare = 1e-3\nlayers = [2, 3]\nis_new = true\n"
    )
    options = parse([chosen])
    assert (options.size_px, options.share, options.layers, options.is_new) == (
        512,
        0.001,
        [2, 3],
        True,
    )


def test_a_stage_of_several_sections_may_call_their_options_otherwise(tmp_path):
    chosen = write(
        tmp_path / "own.toml",
        '[preprocess.crop]\nmethod = "box"\n[preprocess.resize]\nsize_px = 99\n',
    )
    renamed = {"preprocess.crop.method": "crop"}
    options = parse([chosen], "preprocess.crop", "preprocess.resize", renamed=renamed)
    assert (options.crop, options.size_px) == ("box", 99)


def test_a_recipe_starts_from_its_base_whatever_folder_it_lies_in(tmp_path):
    (tmp_path / "folder").mkdir()
    write(
        tmp_path / "folder" / "base.toml", 'based_on = "demo"\n[preprocess.resize]\nshare = 0.5\n'
    )
    chosen = write(
        tmp_path / "top.toml", 'based_on = "folder/base.toml"\n[preprocess.resize]\nlayers = [1]\n'
    )
    options = parse([chosen])
    assert (options.size_px, options.share, options.layers) == (160, 0.5, [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[preprocess.resize", "not a TOML file"),
        ("x = 1", r"\[x\] is not a stage"),
        ("[preprocess]\nsize_px = 64", r"\[preprocess\.size_px\] is not a stage"),
        (
            "[preprocess.rezise]\nsize_px = 64",
            r"\[preprocess\.rezise\] is not a stage \(near: preprocess\.resize\)",
        ),
        (
            "[preprocess.resize]\nsize = 64",
            r"\[preprocess\.resize\] size: no such option \(near: size_px\)",
        ),
        ("[preprocess.resize]\ncache = 'x'", r"cache: no such option"),
        (
            "[preprocess.resize]\nsize_px = 31",
            r"size_px: '31' is not a whole number from 32 to 4096",
        ),
        ("[preprocess.resize]\nsize_px = 64.0", "size_px: '64.0' is not a whole number"),
        ("[preprocess.resize]\nsize_px = true", "size_px: True is neither a number nor a word"),
        ("[preprocess.resize]\nsize_px.a = 1", "size_px: .* is neither a number nor a word"),
        ("[preprocess.resize]\nshare = nan", "share: 'nan' is not a number from 0 to 1"),
        ("[preprocess.resize]\ncrop = 'boxes'", "crop: 'boxes' is none of adaptive, box"),
        ("[preprocess.resize]\nlayers = []", r"layers: \[\] is no list of values"),
        ("[preprocess.resize]\nbounds = [1]", r"bounds: \[1\] is no list of 2 values"),
        ("[preprocess.resize]\nis_new = 1", "is_new: 1 is neither true nor false"),
        ("based_on = 1", "based_on is 1, not the name of a recipe"),
        ("based_on = 'demmo'", r"based_on demmo: no such recipe \(near: demo\)"),
        ("based_on = 'gone.toml'", r"gone\.toml: no such recipe"),
        ("based_on = 'own.toml'", "based_on is circular"),
        ("based_on = 'other.toml'", "based_on is circular"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_file(tmp_path, text, message):
    write(tmp_path / "other.toml", "based_on = 'own.toml'")
    chosen = write(tmp_path / "own.toml", text)
    with pytest.raises(InputError, match=message) as caught:
        parse([chosen])
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_told_the_near():
    with pytest.raises(
        InputError, match=r"--recipe artikle: no such recipe \(near: article\); or give a file"
    ):
        parse(["--recipe=artikle"])


def test_help_lists_the_recipes_and_shows_what_the_chosen_one_says(capsys):
    with pytest.raises(SystemExit):
        parse(["--recipe=demo", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ",".join(recipe.list_names()) in shown.replace(" ", "")  # lines may end behind a hyphen
    assert "(default: 160)" in shown


@pytest.mark.parametrize("name", recipe.list_names())
def test_every_recipe_says_what_it_is_for_and_starts_from_the_article(name):
    chain = recipe.read_chain(name)
    assert [chain[0].path.stem, chain[-1].path.stem] == [recipe.BASE, name]
    assert chain[-1].path.read_text().startswith("# ")


@pytest.mark.parametrize("name", recipe.list_names())
def test_training_takes_every_recipe(name, monkeypatch):
    monkeypatch.setattr(settings.catalog, "check", lambda *_: None)  # which makes the net
    monkeypatch.setattr(settings.catalog, "find_source", lambda *_: None)  # which needs timm
    located = SimpleNamespace(digest="0" * 64)
    drawn = Path("0010.pt")
    monkeypatch.setattr(settings.weight_files, "locate_drawn", lambda _: drawn)
    monkeypatch.setattr(
        settings.weight_files, "locate", lambda _: located
    )  # of a file that is fetched by hand
    parser = cli.make_parser("dr.train", "", "")
    settings.add_options(parser)
    assert settings.parse(parser, [f"--recipe={name}"])[1].epochs
