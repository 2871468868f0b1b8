"""Evidence: methods side by side on images whose truth is known, their scores, tables and figures.

    methods.py      every method by name; each is `y, corruption -> x` for a setting
    problems.py     what is measured of an image: super-resolution, holes, thick slices, and what no prior saw
    volumes.py      whole heads in thick slices at an angle, and their scores; volume_methods.py, who reconstructs them
    baselines.py    those that learn, trained where they are missing
    evaluate.py     the command: degrade, reconstruct, measure; resumable

A new method is a function from a `Setting` to a `Method`, and a line in methods.py.
"""
