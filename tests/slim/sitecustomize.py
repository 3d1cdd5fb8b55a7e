"""First on the path of processes under test that import jsonschema, as each of Ray's dozen does.

Where the development tools are installed, jsonschema finds a grammar of addresses and parses it for seconds; where the
service runs there is none.
"""

import sys

sys.modules["rfc3987_syntax"] = None
