"""Files and folders that appear together: written in private folders beside their names, then moved there.

A staging folder is called `.brgm-TOKEN.part`, has mode 0700 and lies in the folder of the names that it serves. The
process that fills it holds a lock on its file `lock`, which ends with the process, however that ends. `new/` holds what
is written. `journal.json`, written before the first move, lists the moves; the renaming to `.brgm-TOKEN.done` ends
them. So a staging folder without an owner is one of a killed process: its moves are undone, and it is removed (see
`settle`).
"""

from brgm_med.staging.commit import together
from brgm_med.staging.folders import NEW, private_folders, settle, settle_below
from brgm_med.staging.journal import sync
from brgm_med.staging.scratch import clear_scratch, scratch_beside, scratch_folder

__all__ = [
    "NEW",
    "clear_scratch",
    "private_folders",
    "scratch_beside",
    "scratch_folder",
    "settle",
    "settle_below",
    "sync",
    "together",
]
