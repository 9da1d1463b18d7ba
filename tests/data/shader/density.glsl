// otzi classes bb37f09f4c25e492
#uicontrol bool density_shown checkbox(default=true)
#uicontrol float density_low slider(min=0, max=1, default=0, step=0.005)
#uicontrol float density_high slider(min=0, max=1, default=1, step=0.005)
#uicontrol bool interpolate checkbox(default=false)
#define true 1
#define false 0
#if VOLUME_RENDERING
#define IN_3D
#endif
#undef true
#undef false
float probability(int channel) {
  return interpolate
    ? toNormalized(getInterpolatedDataValue(channel)) : toNormalized(getDataValue(channel));
}
float windowed(float density) {
  return clamp((density - density_low) / max(density_high - density_low, 1e-3), 0.0, 1.0);
}
// color over sum; rgb of both is multiplied by alpha
vec4 over(vec4 sum, vec3 color, float low, float alpha, int channel) {
  alpha *= clamp((probability(channel) - low) / max(1.0 - low, 1e-3), 0.0, 1.0);
  return sum * (1.0 - alpha) + vec4(color, 1.0) * alpha;
}
void main() {
  float density = windowed(probability(0));
  vec4 sum = vec4(0.0);
#ifdef IN_3D
  emitTransparent();
#else
  if (density_shown) {
    emitRGB(sum.rgb + density * (1.0 - sum.a));
  } else {
    emitRGBA(vec4(sum.rgb / max(sum.a, 1e-6), sum.a));
  }
#endif
}
