"""Draws a character: a ``CharacterSpec`` and a ``FacePose`` become a display list, and that becomes pixels.

* ``bust`` puts a character together from ``face``, ``eyes``, ``mouth``, ``hair`` and ``clothes``. These append shapes to a
  ``DisplayList``; nothing is drawn yet. Functions named ``draw_…`` append to a list, all others return a group.
* ``proportions`` computes the measures of a face from the features of a character.
* ``scenery`` does the same for the background, and ``dithering`` removes the bands of its gradients.
* ``display_list`` has shapes and groups; ``geometry`` and ``colours`` have paths, transforms, colours and gradients.
* ``rasterizer`` turns a display list into pixels, and ``text`` a caption.

Parts that look the same in every frame (hair, clothes, ears …) are static groups, cached by character; parts that change in small
steps (eyes) are also cached by step. That is why ``CharacterSpec`` is hashable, and why the rasterizer can tell what changed by comparing
display lists. There are no pictures and no state: the same character and pose always give the same display list.

The drawing is a square of 720 units around the character. Videos show a part of it or more (``characters.Framing``), so shapes that
reach its edges continue beyond them.
"""
