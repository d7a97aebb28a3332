"""How nnU-Net's trainers take LNG-SWR and adversarial training on."""
