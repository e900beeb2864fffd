"""Run a command that ends with the process that started it: python with_parent.py COMMAND [ARGUMENTS]"""

import os
import sys

from swift_study.io.processes import become_starter, end_with_parent

end_with_parent()  # holds for the command as well, which takes this process's place
become_starter()
os.execvp(sys.argv[1], sys.argv[1:])
