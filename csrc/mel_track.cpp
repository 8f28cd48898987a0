#include "mel_track.h"

#include <algorithm>
#include <limits>

namespace refavs {
namespace {

constexpr size_t kEverything = std::numeric_limits<size_t>::max();

}  // namespace

MelTrack::MelTrack(double keep_s)
    : kept_frames_(keep_s > 0.0
                       ? static_cast<size_t>(keep_s * kSampleRateHz / kHopSamples) + kPatchFrames
                       : kEverything) {
  // With the window of hop 0 ahead of the track, frame k of the stream is the first of window k.
  parts_.push_back(begin_part(0, kPatchSamples));
  parts_.back().kept.clear();
}

// A new stream that ends with `silence`, which begins on a hop and is a window or more.
MelTrack::Part MelTrack::begin_part(int64_t end, int64_t silence) {
  Part part;
  part.first = (end - silence + kPatchSamples) / kHopSamples;
  part.end = end;
  part.kept.assign(static_cast<size_t>(silence), 0.0f);
  stream_ = StreamingLogMel();
  fresh_.clear();
  const std::vector<float> zeros(static_cast<size_t>(silence), 0.0f);
  stream_.push(zeros.data(), zeros.size(), &fresh_);
  part.frames.assign(fresh_.begin(), fresh_.end());
  return part;
}

void MelTrack::add(const float* samples, int64_t count) {
  fresh_.clear();
  stream_.push(samples, static_cast<size_t>(count), &fresh_);
  std::lock_guard<std::mutex> lock(mutex_);
  append(samples, count);
  changed_.notify_all();
}

void MelTrack::append(const float* samples, int64_t count) {
  Part& part = parts_.back();
  samples_ += count;
  part.end += count;
  part.kept.insert(part.kept.end(), samples, samples + count);
  part.frames.insert(part.frames.end(), fresh_.begin(), fresh_.end());
  trim();
}

void MelTrack::trim() {
  if (kept_frames_ == kEverything) return;
  size_t frames = 0;
  for (const Part& part : parts_) frames += part.frames.size();
  for (; parts_.size() > 1 && frames - parts_.front().frames.size() >= kept_frames_;
       parts_.pop_front())
    frames -= parts_.front().frames.size();
  if (frames > kept_frames_)
    parts_.front().forget_before(parts_.front().first +
                                 static_cast<int64_t>(frames - kept_frames_));
}

void MelTrack::Part::forget_before(int64_t hop) {
  while (first < hop && !frames.empty()) {
    frames.pop_front();
    ++first;
  }
  const int64_t begin = hop * kHopSamples - kPatchSamples;
  const int64_t old = std::clamp<int64_t>(begin - kept_from(), 0, end - kept_from());
  kept.erase(kept.begin(), kept.begin() + old);
}

void MelTrack::add_silence(int64_t count) {
  const std::vector<float> window(kPatchSamples, 0.0f);
  const int64_t end = samples_ + count;
  // The next part begins on a hop, a window or up to a hop more before `end`.
  const int64_t silence = kPatchSamples + end % kHopSamples;
  if (count < kPatchSamples + silence) {
    for (; count > 0; count -= kPatchSamples)
      add(window.data(), std::min<int64_t>(count, kPatchSamples));
    return;
  }
  add(window.data(), kPatchSamples);
  Part part = begin_part(end, silence);
  std::lock_guard<std::mutex> lock(mutex_);
  parts_.push_back(std::move(part));
  samples_ = end;
  trim();
  changed_.notify_all();
}

void MelTrack::jump(int64_t to) {
  if (to <= samples_) return;
  add_missing(samples_, to);
  add_silence(to - samples_);
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
  append(nullptr, 0);
  finished_ = true;
  changed_.notify_all();
}

bool MelTrack::wait(int64_t hop, std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, timeout,
                           [&] { return finished_ || parts_.back().end >= hop * kHopSamples; });
}

MelPatch MelTrack::take(int64_t hop) {
  std::lock_guard<std::mutex> lock(mutex_);
  hop = std::max(hop, hop_);
  hop_ = hop;
  const int64_t end = hop * kHopSamples;
  const int64_t begin = end - kPatchSamples;
  while (parts_.size() > 1 && parts_.front().end < end) parts_.pop_front();
  Part& part = parts_.front();
  part.forget_before(hop);
  while (!missing_.empty() && missing_.front().end <= begin) missing_.pop_front();

  MelPatch patch;
  patch.end_s = static_cast<double>(end) / kSampleRateHz;
  patch.log_mel.reserve(kPatchFrames * kMelBins);
  for (int64_t k = hop; k < hop + kPatchFrames; ++k) {
    if (k >= part.first && k - part.first < static_cast<int64_t>(part.frames.size())) {
      const MelFrame& frame = part.frames[static_cast<size_t>(k - part.first)];
      patch.log_mel.insert(patch.log_mel.end(), frame.begin(), frame.end());
    } else {
      patch.log_mel.insert(patch.log_mel.end(), kMelBins, silent_log_mel());
    }
  }

  patch.samples.assign(kPatchSamples, 0.0f);
  std::vector<char> is_here(kPatchSamples, 0);
  const int64_t from = std::max(begin, part.kept_from());
  const int64_t to = std::min(end, part.end);
  if (from < to) {
    const auto first = part.kept.begin() + (from - part.kept_from());
    std::copy(first, first + (to - from), patch.samples.begin() + (from - begin));
    std::fill_n(is_here.begin() + (from - begin), to - from, 1);
  }
  for (const Range& range : missing_) {
    const int64_t lost_from = std::max(begin, range.begin);
    const int64_t lost_to = std::min(end, range.end);
    if (lost_from < lost_to)
      std::fill_n(is_here.begin() + (lost_from - begin), lost_to - lost_from, 0);
  }
  patch.missing_samples = std::count(is_here.begin(), is_here.end(), 0);
  return patch;
}

double MelTrack::ahead_s() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<double>(parts_.back().end - hop_ * kHopSamples) / kSampleRateHz;
}

int64_t MelTrack::missing_samples() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return missing_samples_;
}

}  // namespace refavs
