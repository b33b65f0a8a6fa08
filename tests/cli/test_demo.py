"""A file that the demo cannot send is refused before anything is started."""

import pytest

from streamapp.cli.app import main


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"message\n", "has no row below its heading"),
        (b"text\nhello\n", "no column 'message', there are: text"),
        (b"message\n\xff\xfe\n", "is not CSV in UTF-8"),
        (b"", "no column 'message'"),
    ],
)
def test_a_file_without_messages_is_refused(tmp_path, capsys, content, said):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    assert main(["demo", "--file", str(path)]) == 2
    assert said in capsys.readouterr().err
