// otzi classes b1cebe03c109eda9: background membrane spikes
#uicontrol bool density_shown checkbox(default=true)
#uicontrol float density_low slider(min=0, max=1, default=0.55, step=0.005)
#uicontrol float density_high slider(min=0, max=1, default=1, step=0.005)
#uicontrol bool interpolate checkbox(default=false)
#uicontrol float modulation slider(min=0, max=1, default=0.5, step=0.005)
#uicontrol bool show_background checkbox(default=false)
#uicontrol vec3 color_background color(default="#0c967b")
#uicontrol float a_background slider(min=0, max=0.99, default=0.5, step=0.005)
#uicontrol float opacity_background slider(min=0, max=1, default=1, step=0.005)
#uicontrol bool show_membrane checkbox(default=true)
#uicontrol vec3 color_membrane color(default="#c79aab")
#uicontrol float a_membrane slider(min=0, max=0.99, default=0.2459, step=0.005)
#uicontrol float opacity_membrane slider(min=0, max=1, default=0.6, step=0.005)
#uicontrol bool show_spikes checkbox(default=true)
#uicontrol vec3 color_spikes color(default="#cf1f61")
#uicontrol float a_spikes slider(min=0, max=0.99, default=0.1, step=0.005)
#uicontrol float opacity_spikes slider(min=0, max=1, default=1, step=0.005)
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
  float strength = 1.0 - modulation * (1.0 - density);
  vec4 sum = vec4(0.0);
  if (show_background) {
    sum = over(sum, color_background, a_background, opacity_background * strength, 1);
  }
  if (show_membrane) {
    sum = over(sum, color_membrane, a_membrane, opacity_membrane * strength, 2);
  }
  if (show_spikes) {
    sum = over(sum, color_spikes, a_spikes, opacity_spikes * strength, 4);
  }
#ifdef IN_3D
  // approximate (order-independent)
  emitRGBA(vec4(sum.rgb / max(sum.a, 1e-6), sum.a));
  emitIntensity(sum.a);
#else
  if (density_shown) {
    emitRGB(sum.rgb + density * (1.0 - sum.a));
  } else {
    emitRGBA(vec4(sum.rgb / max(sum.a, 1e-6), sum.a));
  }
#endif
}
