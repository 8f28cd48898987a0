#include "mel_track.h"

#include <algorithm>
#include <limits>

namespace refavs {

MelTrack::MelTrack(double keep_s)
    : kept_frames_(keep_s > 0.0
                       ? static_cast<size_t>(keep_s * kSampleRateHz / kHopSamples) + kPatchFrames
                       : std::numeric_limits<size_t>::max()) {
  // With the window of hop 0 ahead of the track, frame k of the stream is the first of window k.
  const std::vector<float> before(kPatchSamples, 0.0f);
  stream_.push(before.data(), before.size(), &fresh_);
  frames_.assign(fresh_.begin(), fresh_.end());
}

void MelTrack::add(const float* samples, int64_t count) {
  fresh_.clear();
  stream_.push(samples, static_cast<size_t>(count), &fresh_);
  std::lock_guard<std::mutex> lock(mutex_);
  samples_ += count;
  kept_.insert(kept_.end(), samples, samples + count);
  frames_.insert(frames_.end(), fresh_.begin(), fresh_.end());
  trim();
  changed_.notify_all();
}

void MelTrack::trim() {
  if (frames_.size() <= kept_frames_) return;
  while (frames_.size() > kept_frames_) {
    frames_.pop_front();
    ++first_;
  }
  const int64_t begin = first_ * kHopSamples - kPatchSamples;
  while (!kept_.empty() && samples_ - static_cast<int64_t>(kept_.size()) < begin) kept_.pop_front();
  while (!missing_.empty() && missing_.front().end <= begin) missing_.pop_front();
}

void MelTrack::jump(int64_t to) {
  if (to <= samples_) return;
  if (to - samples_ <= kPatchSamples) {
    const std::vector<float> silence(static_cast<size_t>(to - samples_), 0.0f);
    add_missing(samples_, to);
    add(silence.data(), to - samples_);
    return;
  }
  // No window that ends later holds anything of before, so the stream begins anew, on the grid of
  // hops, with the silence of one window.
  const int64_t hop = to / kHopSamples;
  const std::vector<float> silence(static_cast<size_t>(to - hop * kHopSamples + kPatchSamples),
                                   0.0f);
  stream_ = StreamingLogMel();
  fresh_.clear();
  stream_.push(silence.data(), silence.size(), &fresh_);
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t lost = samples_ - static_cast<int64_t>(kept_.size());
  missing_samples_ += to - samples_;
  missing_.assign({{lost, to}});
  kept_.assign(silence.begin(), silence.end());
  samples_ = to;
  first_ = hop;
  frames_.assign(fresh_.begin(), fresh_.end());
  changed_.notify_all();
}

void MelTrack::add_missing(int64_t begin, int64_t end) {
  if (begin >= end) return;
  std::lock_guard<std::mutex> lock(mutex_);
  missing_.push_back({begin, end});
  missing_samples_ += end - begin;
}

void MelTrack::finish() {
  // Completes the frames that hold the last samples; later ones hold none.
  const std::vector<float> after(kMelFrameSamples, 0.0f);
  fresh_.clear();
  stream_.push(after.data(), after.size(), &fresh_);
  std::lock_guard<std::mutex> lock(mutex_);
  frames_.insert(frames_.end(), fresh_.begin(), fresh_.end());
  finished_ = true;
  changed_.notify_all();
}

bool MelTrack::wait(int64_t hop, std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, timeout,
                           [&] { return finished_ || samples_ >= hop * kHopSamples; });
}

MelPatch MelTrack::take(int64_t hop) {
  std::lock_guard<std::mutex> lock(mutex_);
  hop = std::max(hop, hop_);
  hop_ = hop;
  while (first_ < hop && !frames_.empty()) {
    frames_.pop_front();
    ++first_;
  }
  MelPatch patch;
  patch.log_mel.reserve(kPatchFrames * kMelBins);
  for (int64_t k = hop; k < hop + kPatchFrames; ++k) {
    if (k - first_ < static_cast<int64_t>(frames_.size()) && k >= first_) {
      const MelFrame& frame = frames_[static_cast<size_t>(k - first_)];
      patch.log_mel.insert(patch.log_mel.end(), frame.begin(), frame.end());
    } else {
      patch.log_mel.insert(patch.log_mel.end(), kMelBins, silent_log_mel());
    }
  }

  const int64_t end = hop * kHopSamples;
  const int64_t begin = end - kPatchSamples;
  while (!kept_.empty() && samples_ - static_cast<int64_t>(kept_.size()) < begin) kept_.pop_front();
  while (!missing_.empty() && missing_.front().end <= begin) missing_.pop_front();
  int64_t missing =
      std::max<int64_t>(0, -begin) + std::max<int64_t>(0, end - std::max(begin, samples_));
  for (const Range& range : missing_)
    missing += std::max<int64_t>(
        0, std::min(std::min(end, samples_), range.end) - std::max(begin, range.begin));
  patch.missing_samples = std::min<int64_t>(missing, kPatchSamples);
  patch.samples.assign(kPatchSamples, 0.0f);
  const int64_t kept_from = samples_ - static_cast<int64_t>(kept_.size());
  const int64_t from = std::max(begin, kept_from);
  const int64_t to = std::min(end, samples_);
  if (from < to)
    std::copy(kept_.begin() + (from - kept_from), kept_.begin() + (to - kept_from),
              patch.samples.begin() + (from - begin));
  patch.end_s = static_cast<double>(hop) * kHopSamples / kSampleRateHz;
  return patch;
}

double MelTrack::ahead_s() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<double>(samples_ - hop_ * kHopSamples) / kSampleRateHz;
}

int64_t MelTrack::missing_samples() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return missing_samples_;
}

}  // namespace refavs
