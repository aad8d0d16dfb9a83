"""A script in timm's manner: features before the classifier, mixed precision, a gradient scaler.

python examples/own_loop/timm_style.py
"""

import timm
import torch
import torch.nn.functional as F

import hessalign as ha

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = timm.create_model("test_resnet", num_classes=4, drop_rate=0.1).to(device)
penalty = ha.HessianAlignment("frobenius", alpha=1e-4, beta=1e-2)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
precision = torch.float16 if device.type == "cuda" else torch.bfloat16

domains = torch.arange(24, device=device) % 3
targets = torch.randint(0, 4, (24,), device=device)
images = torch.randn(24, 3, 64, 64, device=device) + domains.view(-1, 1, 1, 1)

for _ in range(4):
    with torch.autocast(device.type, dtype=precision):
        # pre_logits=True ends after pooling and dropout: what the classifier gets.
        features = model.forward_head(model.forward_features(images), pre_logits=True)
        logits = model.get_classifier()(features)
        risk = F.cross_entropy(logits, targets)
        distance = penalty(features, logits, targets, domains)  # computes in float32 by itself
    optimizer.zero_grad()
    scaler.scale(risk + distance).backward()
    scaler.step(optimizer)
    scaler.update()

print(f"risk {risk.item():.3f}, penalty {distance.item():.6f}, computed in {distance.dtype}")
