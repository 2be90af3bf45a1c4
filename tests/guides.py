"""Commands that guides show."""

import re
import subprocess


def words_of(page, heading):
    """The words of the command below a heading of a page's text, as bash splits and expands it."""
    section = page.partition(f'\n## {heading}\n')[2].partition('\n## ')[0]
    text = re.search(r'```bash\nmmuniformer (.*?)```', section, re.DOTALL)[1]
    # One word a line.
    printed = ['bash', '-c', f"printf '%s\\n' {text}"]
    return subprocess.run(printed, capture_output=True, text=True, check=True).stdout.splitlines()
