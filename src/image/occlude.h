/*
 * occlude.h
 *	  Which parts of an image a score rests on, by hiding them.
 *
 * Occlusion sensitivity (Zeiler, Fergus, "Visualizing and Understanding
 * Convolutional Networks", ECCV 2014, section 4.2): a grey square goes over
 * the image, and where the score falls, the square hid what it rested on.
 *
 * The image is a grid of 16 x 16 cells; the square covers 2 x 2 of them and
 * moves by one, which makes 15 x 15 windows, numbered row by row.  A cell's
 * heat is the mean fall of the windows over it, a pixel's that of the cells
 * around it, interpolated.
 */
#ifndef DFX_IMAGE_OCCLUDE_H
#define DFX_IMAGE_OCCLUDE_H

#include <stdint.h>

#define DFX_OCCLUDE_CELLS   16
#define DFX_OCCLUDE_WINDOWS ((DFX_OCCLUDE_CELLS - 1) * (DFX_OCCLUDE_CELLS - 1))

/*
 * Copy side x side RGB pixels, those below the window replaced by ImageNet's
 * mean, which the networks see as zero.  side: a multiple of DFX_OCCLUDE_CELLS.
 */
extern void dfx_occlude(const uint8_t *pixels, int side, int window, uint8_t *out);

/*
 * The image in grey, in red where hiding it makes the score fall and in blue
 * where it makes it rise, the strongest of all in full colour.  fall: by
 * window, in any unit; least: what is full colour when nothing is stronger,
 * so that noise stays pale.
 */
extern void dfx_occlude_paint(const uint8_t *pixels, int side, const float fall[DFX_OCCLUDE_WINDOWS],
                              double least, uint8_t *out);

#endif /* DFX_IMAGE_OCCLUDE_H */
